// Makes niivue.js.gz of the npm packages that package.json names: `npm install && node build.mjs`.
// Only what draws volumes is wanted: readers of remote zarr stores, half of NiiVue by size, are left out.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";
import path from "node:path";
import fs from "node:fs";

const root = path.resolve("node_modules/@niivue/niivue");
const parts = {
  name: "niivue",
  setup(b) {
    b.onResolve({ filter: /^@\// }, found => b.resolve(`./${found.path.slice(2)}`, { resolveDir: path.join(root, "src"), kind: found.kind }));
    b.onResolve({ filter: /^zarrita/ }, found => ({ path: found.path, namespace: "absent" }));
    b.onLoad({ filter: /.*/, namespace: "absent" }, () => ({ contents: "module.exports = {};", loader: "js" }));
  },
};
const result = await build({
  stdin: { contents: `export { Niivue } from "${root}/src/niivue/index.ts";`, resolveDir: root },
  bundle: true, minify: true, write: false, format: "iife", globalName: "niivue", target: "es2022", plugins: [parts],
  legalComments: "none", loader: { ".jpg": "dataurl", ".png": "dataurl" },
});
fs.writeFileSync("niivue.js.gz", gzipSync(result.outputFiles[0].contents, { level: 9 }));
