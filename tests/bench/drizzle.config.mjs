// For drizzle-kit: the folder and the server come from the environment.
export default {
  dialect: "postgresql",
  out: process.env.MIGRATIONS,
  dbCredentials: { url: process.env.DATABASE_URL },
};
