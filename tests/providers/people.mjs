// The people of the tests. Whoever is not here cannot sign in.

export const people = {
  ann: { email: 'ann@example.com', email_verified: true, groups: ['engineering'] },
  bob: { email: 'bob@example.com', email_verified: true, groups: ['support'] },
  carol: { email: 'carol@example.com', email_verified: true, groups: ['security'] },
  mallory: { email: 'mallory@example.com', email_verified: true, groups: [] },
};
