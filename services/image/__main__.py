"""python -m services.image"""

from core.process import run_service
from core.settings import Settings
from services.image.app import main

run_service(main, log_level=Settings.from_env().log_level)
