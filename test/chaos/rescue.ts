export async function measureRescue(_: {
  seed: number;
  kills: number;
  write: (line: string) => void;
}): Promise<object> {
  return {};
}
