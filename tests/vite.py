"""A web project with a real dev server: Vite (https://vite.dev), from npm."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests import npm

PACKAGE, OF = "vite@7.1.12", "2025-11-01"
"""The version, and the day of the versions of what it needs."""

DEV_SERVER = "exec node node_modules/vite/bin/vite.js --port $PORT --strictPort"
"""Which the workspace starts, in the project's folder."""

FILES = {
    "package.json": '{"private": true, "type": "module", "scripts": {"test": "node --test"}}',
    "index.html": """<!doctype html>
<title>Shop</title>
<h1>Shop</h1>
<button>0</button>
<script type="module" src="/main.js"></script>
""",
    "main.js": """import "./shop.css";
import { next } from "./next.js";
const button = document.querySelector("button");
button.onclick = () => { button.textContent = next(Number(button.textContent)); };
""",
    "next.js": "export const next = (count) => count + 1;\n",
    "shop.css": """body { display: grid; place-content: center; gap: 1rem; height: 90vh; font-family: system-ui; }
h1 { color: rgb(200, 0, 0); }
button { font: inherit; padding: 0.5rem 2rem; }
""",
    "next.test.js": """import assert from "node:assert";
import { test } from "node:test";
import { next } from "./next.js";
test("one more", () => assert.equal(next(1), 2));
""",
}
"""A page that counts what it is clicked, with a style, and a test."""


def project() -> bytes:
    """The project with Vite, as a tar.gz of its folder's content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(installed(), "node_modules")
        for name, text in FILES.items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def installed() -> Path:
    """The folder `node_modules` with Vite."""
    return npm.installed(PACKAGE, OF)
