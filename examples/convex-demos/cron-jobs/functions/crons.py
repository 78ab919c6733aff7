from headwater import cron, every

from . import messages

cron("clear messages table", every(minutes=1), messages.clear_all)
