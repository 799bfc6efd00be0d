"""How the operator logs: one line a record, as text or as JSON, to standard error."""

import json
import logging
from datetime import UTC, datetime

from stepaudio_operator.settings import LogSettings


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(settings: LogSettings) -> None:
    """Sets up logging for the process; libraries only speak up from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter()
        if settings.json
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stepaudio_operator").setLevel(settings.level)
    logging.getLogger("kopf.objects").setLevel(logging.ERROR)  # one line for every event of every object
