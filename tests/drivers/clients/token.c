/*
 * Preloaded into programs of libpq 18: gives them the bearer token of BEARER_TOKEN, where libpq-oauth would ask a person for one. libpq
 * itself connects, asks the server where tokens come from, and connects again.
 */
#include <stdlib.h>

#include "libpq-fe.h"

static int give(PGauthData kind, PGconn *connection, void *data)
{
	PGoauthBearerRequest *request = data;

	(void) connection;
	if (kind != PQAUTHDATA_OAUTH_BEARER_TOKEN)
		return 0;
	request->token = getenv("BEARER_TOKEN");
	return request->token ? 1 : -1;
}

__attribute__((constructor)) static void begin(void)
{
	PQsetAuthDataHook(give);
}
