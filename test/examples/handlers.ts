/** What the processor runs. No producer imports this. */
import { deliverWebhookHandler } from "../../functions/tasks/webhooks.handler.ts";
import { TaskCancelError } from "../../lib/index.ts";
import { sendMail } from "./mail.ts";
import { openPool } from "./pool.ts";
import { databaseUrl } from "./settings.ts";
import { nightlyReport, sendWelcomeEmail } from "./tasks.ts";

const pool = openPool(databaseUrl());

export const sendWelcomeEmailHandler = sendWelcomeEmail.handle(async ({ customerId }, { signal, taskId }) => {
  const { rows } = await pool.query<{ email: string }>("SELECT email FROM customer WHERE id = $1", [customerId]);
  const customer = rows[0];
  if (customer === undefined) throw new TaskCancelError("The customer has left since.");
  await sendMail({ to: customer.email, subject: "Welcome", text: "Good to have you." }, taskId, signal);
});

/** Each day that is over and not reported yet: running it twice changes nothing, and a night without it is made up for. */
export const nightlyReportHandler = nightlyReport.handle(async () => {
  const { rowCount } = await pool.query(`
    INSERT INTO sign_up_report (day, sign_ups)
    SELECT day, count(*) FROM customer, date(signed_up_at AT TIME ZONE 'Europe/Berlin') AS day
    WHERE day < date(now() AT TIME ZONE 'Europe/Berlin')
    GROUP BY day
    ON CONFLICT (day) DO NOTHING`);
  return { days: rowCount };
});

export const handlers = [sendWelcomeEmailHandler, nightlyReportHandler, deliverWebhookHandler];
