"use strict";
// The first process of a workspace's container: puts what an empty volume lacks, then serves the editor.
// The flags are those of local mode (workers/runtime/launching.py); who may come in is said by whoever sends visitors
// here, and guard.js sees that nobody else does.
const fs = require("node:fs");

const VOLUME = "/workspace";
const files = `${VOLUME}/app`;
const home = `${VOLUME}/home`;
// Where code-server keeps its data by itself, so that the terminals in it agree.
const data = `${home}/.local/share/code-server`;

process.umask(0o022);
for (const folder of [files, home, data]) fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
process.chdir(files);
process.argv.push(
  ...["--bind-addr", "0.0.0.0:8080"],
  ...["--auth", "none"],
  // Without this it makes a file with a password for itself.
  ...["--config", "/dev/null"],
  ...["--user-data-dir", data],
  ...["--extensions-dir", `${data}/extensions`],
  "--disable-telemetry",
  "--disable-update-check",
  "--disable-workspace-trust",
  // Half of what would make VS Code relay to an agent host elsewhere, and so it starts none of its own: 77 MB
  // for the sake of Copilot, which this image has not.
  ...["--vscode-option", "agent-host-bridge-host=127.0.0.1"],
  files,
);
require("./launch");
