/** npm forwards a Ctrl-C that the terminal has sent to everybody already: so close together, the two are one. */
const SAME_SIGNAL_MS = 250;

/** Resolves with the first SIGINT or SIGTERM. A second one ends the process at once. */
export function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstAt: number | undefined;
    const stop = (signal: NodeJS.Signals): void => {
      if (firstAt === undefined) {
        firstAt = performance.now();
        resolve(signal);
      } else if (performance.now() - firstAt > SAME_SIGNAL_MS) {
        process.exit(signal === "SIGINT" ? 130 : 143);
      }
    };
    process.on("SIGINT", stop);
    process.on("SIGTERM", stop);
  });
}
