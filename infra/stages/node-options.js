/** What is left of a function's memory is for buffers, code and the runtime. */
const HEAP_SHARE = 0.75;

/**
 * NODE_OPTIONS of a function. Two limits that V8 takes its habits from: in a small young generation a batch of payloads does not stand
 * several times over, and the lower the limit of the old one, the sooner its garbage is collected (infra/decisions/0010-speed.md).
 */
export const nodeOptions = (memoryMb) =>
  `--max-semi-space-size=2 --max-old-space-size=${Math.floor(memoryMb * HEAP_SHARE)}`;
