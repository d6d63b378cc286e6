// Starts the page: the chosen theme before the first paint, then the WebAssembly that index.html preloaded.
try { document.documentElement.dataset.theme = localStorage.getItem("longshore.theme") || "system"; } catch { /* no storage */ }
import init from "{js}";
await init({ module_or_path: "{wasm}" });
// The pieces of rarer pages come after it, into the browser's cache, so that they open at once.
if (!navigator.connection?.saveData) {
  for (const piece of "{pieces}".split(" ")) fetch(piece, { priority: "low" }).then((r) => r.arrayBuffer()).catch(() => {});
}
