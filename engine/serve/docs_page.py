"""The page that describes every route, without a CDN: its files are those of `fastapi_offline`."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import Response

PAGE, FILES = "/docs", "/docs/static/"
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def add_docs_page(app: FastAPI) -> None:
    """Adds the page to an app that has none, and its files.

    Routes of their own: a mounted folder is not found where a proxy takes its part of the path out.
    """
    folder = files("fastapi_offline").joinpath("static")

    @app.get(PAGE, include_in_schema=False)
    async def show_docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        script, style, icon = [f"{root}{FILES}{name}" for name in MEDIA_TYPES]
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
        )
        page.headers["content-security-policy"] = POLICY
        return page

    @app.get(FILES + "{name}", include_in_schema=False)
    async def show_file(name: str) -> Response:
        if name not in MEDIA_TYPES:
            raise HTTPException(404, "Not Found")
        return Response(folder.joinpath(name).read_bytes(), media_type=MEDIA_TYPES[name])
