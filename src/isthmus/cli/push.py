"""`isthmus push`: a model on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model folder or an export.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private, where it is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.", metavar="BRANCH")] = None,
    licence: Annotated[
        str | None, typer.Option(help="The hub's name of a licence, for the card.", metavar="NAME")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="README to send, instead of the one made from what was measured.", metavar="FILE.md"),
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Send a model to the Hugging Face hub, with a card of its scores; the token: HF_TOKEN, or hf auth login."""
    from isthmus.cli.common import print_json
    from isthmus.export.push import push as send
    from isthmus.models.hub import local

    place = send(local(model), repo, private=private, revision=revision, licence=licence, card=card, message=message)
    if json:
        print_json({"place": place})
        return
    print(f'Sent. Load it anywhere with  isthmus.load("{place}")')
