/** @throws Error that names every bad parameter */
export function settingsOf(given: Readonly<Record<string, string>>, name: string): Record<string, unknown>;
