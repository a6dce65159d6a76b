"""Alt text for a whole website, from Python.

    from cutline import load, site

    site.crawl("site.cutline", "https://example.org/")
    site.draft("site.cutline", load())
    print(site.status("site.cutline").drafted)

Every function takes the site's store: an open `Store`, or the path of its file. `run` finds the
images, drafts alt texts and writes a report in one call. Each name is imported when it is first
used, so that `import cutline.site` is fast and needs neither an inference engine nor the extra
`cutline[site]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cutline.errors import MissingExtraError

if TYPE_CHECKING:
    from cutline.progress import Progress
    from cutline.site.images import DownloadOptions
    from cutline.site.lint_workflow import Baseline, Location, changed_files, lint_files
    from cutline.site.model import Verdict
    from cutline.site.opening import open_store
    from cutline.site.outcomes import (
        ApplyResult,
        CrawlResult,
        DraftResult,
        ExportFormat,
        ImportResult,
        RunResult,
        ScanResult,
        UndoResult,
        WordPressResult,
    )
    from cutline.site.pages.crawl_types import CrawlOptions
    from cutline.site.pipeline import DraftOptions
    from cutline.site.review_workflow import (
        apply,
        export,
        export_rows,
        lint,
        read_reviews,
        report,
        report_path,
        review,
        status,
        undo,
        write_report,
        write_reviews,
    )
    from cutline.site.store.store import Store
    from cutline.site.wordpress.opening import open_wordpress
    from cutline.site.wordpress_workflow import read_wordpress
    from cutline.site.workflow import crawl, draft, import_export, judge, run, scan
    from cutline.site.writeback.pictures import PicturesDestination

_MODULES = {
    "cutline.progress": "Progress",
    "cutline.site.images": "DownloadOptions",
    "cutline.site.lint_workflow": "Baseline Location changed_files lint_files",
    "cutline.site.model": "Verdict",
    "cutline.site.opening": "open_store",
    "cutline.site.outcomes": "ApplyResult CrawlResult DraftResult ExportFormat ImportResult "
    "RunResult ScanResult UndoResult WordPressResult",
    "cutline.site.pages.crawl_types": "CrawlOptions",
    "cutline.site.pipeline": "DraftOptions",
    "cutline.site.review_workflow": "apply export export_rows lint read_reviews report "
    "report_path review status undo write_report write_reviews",
    "cutline.site.store.store": "Store",
    "cutline.site.wordpress.opening": "open_wordpress",
    "cutline.site.wordpress_workflow": "read_wordpress",
    "cutline.site.workflow": "crawl draft import_export judge run scan",
    "cutline.site.writeback.pictures": "PicturesDestination",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "ApplyResult",
    "Baseline",
    "CrawlOptions",
    "CrawlResult",
    "DownloadOptions",
    "DraftOptions",
    "DraftResult",
    "ExportFormat",
    "ImportResult",
    "Location",
    "PicturesDestination",
    "Progress",
    "RunResult",
    "ScanResult",
    "Store",
    "UndoResult",
    "Verdict",
    "WordPressResult",
    "apply",
    "changed_files",
    "crawl",
    "draft",
    "export",
    "export_rows",
    "import_export",
    "judge",
    "lint",
    "lint_files",
    "open_store",
    "open_wordpress",
    "read_reviews",
    "read_wordpress",
    "report",
    "report_path",
    "review",
    "run",
    "scan",
    "status",
    "undo",
    "write_report",
    "write_reviews",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cutline.site' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "cutline").partition(".")[0] == "cutline":
            raise
        raise MissingExtraError("cutline.site", "site") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
