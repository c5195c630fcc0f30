"""The user-server: one a user, as the user. Signs and seals his jobs, starts his exec-servers, relays. Imports no other daemon."""
