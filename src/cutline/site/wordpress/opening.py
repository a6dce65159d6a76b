"""Opening the WordPress site of a store again, for writing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.errors import OptionError
from cutline.site.store.store import Store

if TYPE_CHECKING:
    from cutline.site.wordpress.client import Api
    from cutline.site.wordpress.destination import WordPress

USER_SETTING = "wordpress_user"
"""The setting with the name of the user who read the site; the password is never stored."""


def open_wordpress(
    store: Store, *, user: str | None = None, password_file: Path | str | None = None
) -> WordPress:
    """The WordPress site that was read into a store; nothing is requested before it is used.

    Args:
        store: the site's store.
        user: the user's name; None takes `CUTLINE_WORDPRESS_USER`, else who read the site.
        password_file: a file with the application password; None takes
            `CUTLINE_WORDPRESS_PASSWORD`.

    Raises:
        OptionError: no WordPress site was read into the store.
    """
    from cutline.site.wordpress.destination import KIND, WordPress

    address = store.setting("start")
    if address is None or store.setting("destination") != KIND:
        raise OptionError(f"got {store.path}, which is not the store of a WordPress site")

    reader = store.setting(USER_SETTING)

    def connect() -> Api:
        from cutline.site.wordpress.client import Api
        from cutline.site.wordpress.credentials import USER_VARIABLE, Credentials

        name = user or os.environ.get(USER_VARIABLE) or reader
        return Api(address, Credentials.find(name, password_file))

    return WordPress(address, connect)
