"""Content-Type by a file's extension.

A table of our own, not `mimetypes`: that one reads files of the system, so that
two servers may disagree, and its Python 3.11 lacks image formats of today. The
types are those of IANA's registry (https://www.iana.org/assignments/media-types/).
What is not here is served as bytes, and browsers are told not to guess.
"""

from __future__ import annotations

OCTETS = "application/octet-stream"

_TYPES = {
    # images
    "apng": "image/apng",
    "avif": "image/avif",
    "avifs": "image/avif",
    "bmp": "image/bmp",
    "cur": "image/vnd.microsoft.icon",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "jxl": "image/jxl",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "webp": "image/webp",
    # sound and moving pictures
    "aac": "audio/aac",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/vnd.wave",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "ogv": "video/ogg",
    "webm": "video/webm",
    # text and documents
    "atom": "application/atom+xml",
    "cjs": "text/javascript",
    "css": "text/css",
    "csv": "text/csv",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "js": "text/javascript",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "txt": "text/plain",
    "vtt": "text/vtt",
    "xml": "text/xml",
    "xsl": "text/xml",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "geojson": "application/geo+json",
    "json": "application/json",
    "jsonld": "application/ld+json",
    "map": "application/json",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rss": "application/rss+xml",
    "rtf": "application/rtf",
    "toml": "application/toml",
    "xht": "application/xhtml+xml",
    "xhtml": "application/xhtml+xml",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    # archives: as they are, never with a Content-Encoding that would unpack them
    "gz": "application/gzip",
    "zip": "application/zip",
    "zst": "application/zstd",
    # models
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    # fonts
    "eot": "application/vnd.ms-fontobject",
    "otf": "font/otf",
    "ttf": "font/ttf",
    "woff": "font/woff",
    "woff2": "font/woff2",
}

#: What a browser would run scripts of, as a page of the site that it came from.
#: What is not in the table is bytes, and no browser shows those.
ACTIVE = frozenset(
    {"application/xhtml+xml", "image/svg+xml", "text/html", "text/javascript", "text/xml"}
)


def content_type(name: str) -> str:
    """The media type for a file name, by what follows its last dot."""
    _stem, dot, extension = name.rpartition(".")
    return _TYPES.get(extension.lower(), OCTETS) if dot else OCTETS
