"""A running WordPress of scripts/wordpress-demo, as the tests see it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutline.site.wordpress.client import Api
from cutline.site.wordpress.credentials import Credentials
from cutline.site.wordpress.destination import ReadOptions, WordPress

SCRIPT = Path(__file__).parents[1] / "scripts" / "wordpress-demo"


@dataclass
class RealWordPress:
    """A running site; `demo.json` of the script has its users, media and posts."""

    folder: Path

    def __post_init__(self) -> None:
        self.facts: dict[str, Any] = json.loads((self.folder / "demo.json").read_text())
        self.url: str = self.facts["url"]
        self.posts: dict[str, int] = self.facts["posts"]
        self.media: dict[str, int] = self.facts["media"]

    def password_file(self, user: str = "admin") -> Path:
        return self.folder / f"{user}.password"

    def credentials(self, user: str = "admin") -> Credentials:
        return Credentials.find(user, self.password_file(user), {})

    def api(self, user: str = "admin") -> Api:
        return Api(self.url, self.credentials(user))

    def site(self, user: str = "admin", **options: Any) -> WordPress:
        return WordPress(self.url, lambda: self.api(user), ReadOptions(**options))

    def sql(self, query: str) -> str:
        """What the database answers, a line for each row."""
        command = ["mariadb", f"--socket={self.folder}/run/db.sock", "--user=root", "--batch"]
        done = subprocess.run(
            [*command, "--skip-column-names", "wordpress"],
            input=query,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def contents(self) -> str:
        """The content of every post and the alt of every image, as the database has them."""
        posts = self.sql(
            "SELECT ID, post_title, post_excerpt, HEX(post_content) FROM wp_posts "
            "WHERE post_type <> 'revision' ORDER BY ID"
        )
        return posts + self.sql(
            "SELECT post_id, HEX(meta_value) FROM wp_postmeta WHERE "
            "meta_key = '_wp_attachment_image_alt' AND meta_value <> '' ORDER BY post_id"
        )

    def content(self, name: str) -> str:
        """The content of a post of the demo, as the database has it."""
        value = self.sql(f"SELECT HEX(post_content) FROM wp_posts WHERE ID = {self.posts[name]}")
        return bytes.fromhex(value.strip()).decode()

    def put_content(self, name: str, content: str) -> None:
        """Set the content of a post without WordPress."""
        value = content.encode().hex()
        self.sql(f"UPDATE wp_posts SET post_content = X'{value}' WHERE ID = {self.posts[name]}")

    def revisions(self, name: str) -> int:
        query = "SELECT COUNT(*) FROM wp_posts WHERE post_type = 'revision' AND post_parent = "
        return int(self.sql(f"{query}{self.posts[name]}"))

    def page(self, name: str) -> str:
        """The URL of a post of the demo in the record of the site."""
        return f"{self.url}?p={self.posts[name]}"

    def item(self, name: str) -> str:
        """The URL of an image of the demo in the record of the site."""
        return f"{self.url}?attachment_id={self.media[name]}"
