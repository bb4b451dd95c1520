/** osls loads .js only; Node runs the TypeScript behind it. */
export { default } from "./plugin.ts";
