"""Sites that are not supported: networks of sites, and sites in several languages."""

from __future__ import annotations

import json
import re

from cutline.errors import DataError
from cutline.site.wordpress.client import Api

_TRANSLATORS = {
    "pll": "Polylang",
    "wpml": "WPML",
    "trp": "TranslatePress",
    "translatepress": "TranslatePress",
    "weglot": "Weglot",
    "qtranslate": "qTranslate",
    "qtx": "qTranslate-XT",
    "multilingualpress": "MultilingualPress",
    "falang": "Falang",
    "linguise": "Linguise",
}
_HTML_LANGUAGE = re.compile(r"<html\b[^>]*?\blang\s*=\s*[\"']([\w-]+)[\"']", re.IGNORECASE)
_ALTERNATE = re.compile(r"<link\b[^>]*\bhreflang\s*=\s*[\"']([\w-]+)[\"'][^>]*>", re.IGNORECASE)
_NETWORK_FILE = re.compile(r"/(?:uploads/sites/\d+|blogs\.dir/\d+)/")
_QTRANSLATE = re.compile(r"\[:[a-z]{2}\]|<!--:[a-z]{2}-->|\{:[a-z]{2}\}")


def check_site(api: Api) -> None:
    """Refuse a network of sites, and a translated site.

    Raises:
        DataError: the site is one of these.
    """
    routes = api.index.get("routes")
    plugins = {
        name: route
        for name, route in (routes.items() if isinstance(routes, dict) else ())
        if "/wp/v2/plugins" in name
    }
    if "network-active" in json.dumps(plugins):  # a state that plugins have in networks only
        refuse_network(api.site)
    for namespace in api.namespaces:
        plugin = _TRANSLATORS.get(namespace.partition("/")[0])
        if plugin:
            _refuse_translated(api.site, f"{plugin} is installed")
    languages = {tag.lower() for tag in _ALTERNATE.findall(api.home_page)} - {"x-default"}
    if len(languages) > 1:
        _refuse_translated(api.site, f"its home page names {', '.join(sorted(languages))}")


def check_content(site: str, content: str) -> None:
    """Refuse content that holds several languages at once.

    Raises:
        DataError: it does.
    """
    if _QTRANSLATE.search(content):
        _refuse_translated(site, "a post holds several languages (qTranslate)")


def check_file(site: str, url: str) -> None:
    """Refuse a network of sites, which the addresses of its files show.

    Raises:
        DataError: it is one.
    """
    if _NETWORK_FILE.search(url):
        refuse_network(site)


def refuse_network(site: str) -> None:
    """Refuse a network of sites.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"got {site}, which belongs to a WordPress network (multisite); expected a single site: "
        "export the results as a table or as WP-CLI commands instead"
    )


def language_of(page: str) -> str:
    """The language of a page's `<html lang>`; "" if it has none."""
    found = _HTML_LANGUAGE.search(page)
    return found[1] if found else ""


def _refuse_translated(site: str, reason: str) -> None:
    raise DataError(
        f"got {site}, a site in several languages ({reason}); expected one language, because an "
        "alt of the library would be shown in all of them"
    )
