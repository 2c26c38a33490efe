// Rebuilds the vendored files of assets/: `npm ci --ignore-scripts && npm run assets`.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const assets = new URL("../assets/", import.meta.url).pathname;
const modules = new URL("../node_modules/", import.meta.url).pathname;
const version = JSON.parse(readFileSync(modules + "plotly.js/package.json", "utf8")).version;

// Only the chart types the figures use: a third of the full bundle. core brings scatter.
const entry = `
  import Plotly from "plotly.js/lib/core";
  import bar from "plotly.js/lib/bar";
  import heatmap from "plotly.js/lib/heatmap";
  Plotly.register([bar, heatmap]);
  export default Plotly;`;

const result = await build({
  stdin: { contents: entry, resolveDir: new URL("..", import.meta.url).pathname },
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plotly",
  footer: { js: "window.Plotly=Plotly.default;" },
  banner: { js: `/*! plotly.js v${version} (scatter, bar, heatmap) | MIT licence | see LICENSES.md */` },
  loader: { ".css": "empty" }, // the style sheet of the map traces, which are left out
  define: { global: "window" },
  legalComments: "none",
  target: "es2020",
  write: false,
});

const code = result.outputFiles[0].contents;
const hash = createHash("sha256").update(code).digest("hex").slice(0, 10);
readdirSync(assets).filter((name) => name.startsWith("plotly-")).forEach((name) => rmSync(assets + name));
writeFileSync(`${assets}plotly-${hash}.min.js`, code);

mkdirSync(assets + "fonts", { recursive: true });
copyFileSync(modules + "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2", assets + "fonts/inter.woff2");

mkdirSync(assets + "icons", { recursive: true });
for (const icon of ["speedometer2", "link-45deg", "moon-stars", "sun", "download", "funnel", "exclamation-triangle", "info-circle", "x", "calendar3", "bullseye"])
  copyFileSync(`${modules}bootstrap-icons/icons/${icon}.svg`, `${assets}icons/${icon}.svg`);
