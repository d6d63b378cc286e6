// Starts the page: the chosen theme before the first paint, then the WebAssembly that index.html preloaded.
try { document.documentElement.dataset.theme = localStorage.getItem("longshore.theme") || "system"; } catch { /* no storage */ }
import init from "{js}";
init({ module_or_path: "{wasm}" });
