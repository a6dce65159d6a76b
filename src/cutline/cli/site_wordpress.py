"""`cutline site wordpress`: the media library and the posts of a WordPress site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import examples, needing
from cutline.cli.interrupts import interruptible
from cutline.cli.site import DEFAULT_STORE, PASSWORD_FILE, QUIET, STORE, USER, finding, site
from cutline.cli.site_messages import Steps, next_command


@site.command(
    epilog=examples(
        "cutline site wordpress https://example.org/ --user ada --password-file ~/wordpress",
        "cutline site wordpress https://example.org/ --user ada --drafts --private",
        "cutline site apply --to library --write",
    )
)
def wordpress(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of the site.")],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    user: Annotated[str | None, USER] = None,
    password_file: Annotated[Path | None, PASSWORD_FILE] = None,
    drafts: Annotated[
        bool, finding("--drafts", help="Read drafts, pending and scheduled posts too.")
    ] = False,
    private: Annotated[bool, finding("--private", help="Read private posts too.")] = False,
    types: Annotated[
        list[str] | None,
        finding("--type", metavar="TYPE", help="Read only posts of this type. Repeatable."),
    ] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the images of a WordPress site through its REST API: media library, posts and pages.

    Create an application password in WordPress under Users, Profile. It is sent only with HTTPS or
    to this machine, and is not stored. Run the same command to continue a stopped reading.

    Exit codes: 0 everything read; 2 usage error; 130 or 143 interrupted.
    """
    from cutline import site as library

    with needing("site", "cutline site wordpress"), interruptible(), Steps(quiet) as steps:
        found = library.read_wordpress(
            store,
            url,
            user=user,
            password_file=password_file,
            drafts=drafts,
            private=private,
            types=types or (),
            progress=steps.show,
        )
        steps.read_wordpress(found)
        steps.say(next_command(store, "draft"))
