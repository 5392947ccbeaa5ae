"use strict";
// Writes activity signals of the editor for the workspace's agent (app/agent/activity_reporter.py): it touches one file when the
// user types, scrolls, selects or saves, and lists unsaved files in another. An open page without user input writes
// nothing. It also shows the agent's notices: that the workspace is about to sleep, and of when its files are after its
// volume was lost.
//
// It is one of the editor's built-in extensions, so it needs no marketplace and users can't uninstall it.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const vscode = require("vscode");

const TOUCH_INTERVAL = 2_000; // ms between two touches.
const DEBOUNCE = 500; // ms without a change before unsaved files are listed.
const NAMES = 20;

const folder = path.join(os.homedir(), ".local", "state", "workspace");
const editor = path.join(folder, "editor");
const unsaved = path.join(folder, "unsaved.json");
const notice = path.join(folder, "notice.json");
const restored = path.join(folder, "restored.json");

let touchedAt = 0;
let announced = 0;
let toldOf = 0;
let listing;

// Fails silently: the user learns of a full volume elsewhere.
function write(file, text) {
  try {
    fs.writeFileSync(`${file}.new`, text);
    fs.renameSync(`${file}.new`, file);
  } catch {
    return;
  }
}

// Notes user input. Changes in a page without focus are no user input: open editors show the agent's changes too.
function noteInput() {
  const now = Date.now();
  if (!vscode.window.state.focused || (now - touchedAt < TOUCH_INTERVAL && now >= touchedAt)) return;
  touchedAt = now;
  write(editor, "");
}

function listUnsaved() {
  clearTimeout(listing);
  listing = setTimeout(() => {
    const open = [...vscode.workspace.textDocuments, ...vscode.workspace.notebookDocuments];
    const names = open.filter((each) => each.isDirty).map((each) => vscode.workspace.asRelativePath(each.uri));
    write(unsaved, JSON.stringify({ names: names.slice(0, NAMES) }));
  }, DEBOUNCE);
}

async function announce() {
  let announcement;
  try {
    announcement = JSON.parse(fs.readFileSync(notice, "utf8"));
  } catch {
    return; // None yet.
  }
  const seconds = Math.round(announcement.sleeps_at - Date.now() / 1000);
  if (!(seconds > 0) || announcement.sleeps_at === announced) return;
  announced = announcement.sleeps_at;
  const answer = await vscode.window.showWarningMessage(
    `This workspace goes to sleep in ${seconds} s because it is idle. Its files are kept.`,
    "Keep going",
  );
  if (answer) write(editor, "");
}

function tellFiles() {
  let told;
  try {
    told = JSON.parse(fs.readFileSync(restored, "utf8"));
  } catch {
    return; // Nothing was lost.
  }
  if (!(told.until > Date.now() / 1000) || told.files_of === toldOf) return;
  toldOf = told.files_of;
  const at = new Date(1000 * told.files_of).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  vscode.window.showWarningMessage(`The disk of this workspace was lost. Your files are those of ${at}.`);
}

function activate(context) {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { window, workspace } = vscode;
  const signals = [
    workspace.onDidChangeTextDocument,
    workspace.onDidSaveTextDocument,
    workspace.onDidChangeNotebookDocument,
    window.onDidChangeActiveTextEditor,
    window.onDidChangeTextEditorSelection,
    window.onDidChangeTextEditorVisibleRanges,
    window.onDidChangeActiveTerminal,
    window.onDidOpenTerminal,
    window.tabGroups.onDidChangeTabs,
  ];
  const changes = [
    workspace.onDidOpenTextDocument,
    workspace.onDidChangeTextDocument,
    workspace.onDidSaveTextDocument,
    workspace.onDidCloseTextDocument,
    workspace.onDidChangeNotebookDocument,
    workspace.onDidSaveNotebookDocument,
    workspace.onDidCloseNotebookDocument,
  ];
  const watcher = fs.watch(folder, (_, name) => {
    if (name === path.basename(notice)) announce();
    if (name === path.basename(restored)) tellFiles();
  });
  context.subscriptions.push(
    ...signals.map((signal) => signal(noteInput)),
    ...changes.map((change) => change(listUnsaved)),
    // `active` follows keys and clicks anywhere in the page. Only its change counts: a page closed while active stays
    // active forever.
    window.onDidChangeWindowState((state) => state.active && noteInput()),
    { dispose: () => watcher.close() },
    { dispose: () => clearTimeout(listing) },
  );
  listUnsaved();
  announce();
  tellFiles();
}

module.exports = { activate };
