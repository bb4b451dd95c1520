/** Imports a bundle, calls its handler once, and tells when the import began and what the process needed. Plain JavaScript, as on Lambda. */
const importedAt = performance.timeOrigin + performance.now();
const { handler } = await import(process.argv[2]);
process.send({ importedAt });
const deadline = Date.now() + 900_000;
const answer = await handler(
  { slot: 0 },
  {
    awsRequestId: "bench",
    functionName: "stint-bench-processor",
    functionVersion: "1",
    invokedFunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:stint-bench-processor",
    memoryLimitInMB: "512",
    getRemainingTimeInMillis: () => deadline - Date.now(),
  },
);
process.send({ succeeded: answer?.succeeded ?? 0, peakBytes: process.resourceUsage().maxRSS * 1024 });
process.disconnect();
