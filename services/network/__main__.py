"""python -m services.network"""

from core.process import quick_loop, run_service
from core.settings import Settings
from services.network.app import main

run_service(main, log_level=Settings.from_env().log_level, loop_factory=quick_loop)
