"""python -m services.runtime"""

from core.process import quick_loop, run_service
from core.settings import Settings
from services.runtime.app import main

run_service(main, log_level=Settings.from_env().log_level, loop_factory=quick_loop)
