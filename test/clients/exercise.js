/** What every exercise here has in common: where the API is, and how it says what it saw. */
export const target = JSON.parse(process.env.DATA_API);

export const show = (seen) => process.stdout.write(`${JSON.stringify(seen)}\n`);

/** The error's name and message, of what the client wraps where it wraps. */
export async function failureOf(work) {
  try {
    return { none: await work() };
  } catch (thrown) {
    const error = thrown.cause ?? thrown;
    return { name: error.code ?? error.name, message: error.message };
  }
}
