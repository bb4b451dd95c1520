export function nodeOptions(memoryMb: number): string;
