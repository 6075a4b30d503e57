// Corresponding positions of two volumes: functions from a position in one volume to one in the other.
lungmix.link = {
  // The same relative position between the ends of the lungs along each axis; of the volumes where one has no lungs.
  byLungs(from, to) {
    const whole = (volume) => volume.shape.map((n) => [0, n - 1]);
    const [begin, end] = from.lungs && to.lungs ? [from.lungs, to.lungs] : [whole(from), whole(to)];
    return (position) => position.map((index, axis) => {
      const [low, high] = begin[axis];
      const [first, last] = end[axis];
      return first + ((index - low) / Math.max(high - low, 1)) * (last - first);
    });
  },
};
