import "./editor.css";
import * as monaco from "monaco-editor";
import EditorWorker from "monaco-editor/editor/editor.worker.js?worker";
import TypeScriptWorker from "monaco-editor/language/typescript/ts.worker.js?worker";

// Else it would run a module that Vite copies as it is, without what that imports.
window.MonacoEnvironment = {
  getWorker: (_, label) => (label === "typescript" ? new TypeScriptWorker() : new EditorWorker()),
};
window.monaco = monaco;
window.editor = monaco.editor.create(document.querySelector("#editor"), {
  autoClosingBrackets: "never",
  autoClosingQuotes: "never",
  autoIndent: "none",
  language: "typescript",
  quickSuggestions: false,
});
