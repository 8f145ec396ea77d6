"""python -m services.cluster"""

from core.process import run_service
from core.settings import Settings
from services.cluster.app import main

run_service(main, log_level=Settings.from_env().log_level)
