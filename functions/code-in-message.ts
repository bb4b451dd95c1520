/** Lambda passes on an error's message only: its stable `code` goes to the front of it. */
export const codeInMessage = ({ error }: { error?: Error | null | undefined }): void => {
  const code = (error as { code?: unknown } | null)?.code;
  if (error && typeof code === "string") error.message = `${code}: ${error.message}`;
};
