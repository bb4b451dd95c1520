import { heartbeatReport } from "./heartbeat-report.ts";

export const heartbeatReportHandler = heartbeatReport.handle((_payload, { attempt, log }) => {
  log.info("the processor is alive", { attempt, rssMiB: Math.round(process.memoryUsage.rss() / 2 ** 20) });
});
