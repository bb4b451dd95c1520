/** For esbuild: the parts that a function is split into bear its name, and are packaged with no other function. */
import { parse } from "node:path";

const ownParts = {
  name: "own-parts",
  setup({ initialOptions }) {
    initialOptions.chunkNames = `${parse(initialOptions.entryPoints[0]).name}.[name]-[hash]`;
  },
};

export default [ownParts];
