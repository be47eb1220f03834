"""``webhooks listen`` and ``webhooks send``: their place in the program."""

from typing import Any

from gather_async.cli import webhooks_listen, webhooks_send

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add both commands to the program."""
    parser = commands.add_parser(
        "webhooks", help="receive webhooks, or send signed samples", allow_abbrev=False
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    webhooks_listen.add_to(inner)
    webhooks_send.add_to(inner)
