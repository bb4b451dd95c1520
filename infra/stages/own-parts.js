/** For esbuild: the parts that a function is split into bear its name, and are packaged with no other function. */
import { parse } from "node:path";

const ownParts = {
  name: "own-parts",
  setup({ initialOptions }) {
    initialOptions.chunkNames = `${parse(initialOptions.entryPoints[0]).name}.[name]-[hash]`;
  },
};

/** `npm start` shows what does not build: serverless-offline goes on with what ran before, and says so in its log only. */
const tellFailures = {
  name: "tell-failures",
  setup({ onEnd }) {
    onEnd(({ errors }) => {
      if (errors.length > 0 && process.env.STINT_TELLS === "true")
        process.send?.({ unbuilt: errors.map(({ text, location }) => `${placeOf(location)}${text}`).join("\n") });
    });
  },
};

const placeOf = (location) => (location ? `${location.file}:${location.line}:${location.column}: ` : "");

export default [ownParts, tellFailures];
