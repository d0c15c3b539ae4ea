/** The neighbour answered that it can't, answered nonsense, or could not be reached. */
export class NeighbourError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'NeighbourError';
  }
}
