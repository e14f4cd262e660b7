// An OpenID provider on loopback: npm's `oidc-provider`, a certified implementation that shares no
// code with pgwitness. The provider itself is used as its authors ship it; around it stands a
// second, private port through which a test bends it: errors at an endpoint, other keys, short
// lives, silence.
//
//   node provider.mjs [--port N] [--control-port N]
//
// Prints one JSON line when both ports serve: {"issuer","control","pid"}. Ends when its standard
// input ends (so that it never outlives the test run) or on SIGTERM.

import { createPrivateKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { people } from './people.mjs';

// oidc-provider prints development hints on both streams; standard output belongs to our one line.
console.info = console.error;
console.warn = () => {};
const { default: Provider } = await import('oidc-provider');

const HOST = '127.0.0.1';
const CONTROL_BODY_MAX = 64 * 1024;
const REQUEST_LOG_MAX = 10_000;

const { values: args } = parseArgs({
  options: { port: { type: 'string', default: '0' }, 'control-port': { type: 'string', default: '0' } },
});

/** What the tests may bend. `*_times` count down with each request they spoil. */
const initialFaults = () => ({
  token_503_times: 0,
  token_slow_down_times: 0,
  token_hang_times: 0,
  device_503_times: 0,
  jwks_503_times: 0,
  discovery_503_times: 0,
  interval: 1,
  device_code_seconds: 600,
  id_token_seconds: 3600,
});

let faults = initialFaults();
let requests = [];
/** People who are otherwise than at first; null: disabled. */
let changed = {};

/** What was given out that only its holder may know: codes, tokens. */
let secrets = new Set();
const SECRETS_MAX = 50_000;
const SECRET_FIELDS = ['device_code', 'access_token', 'id_token', 'refresh_token'];

function remember(secret) {
  if (secrets.size < SECRETS_MAX) secrets.add(secret);
}

const clientSecret = randomBytes(24).toString('base64url');
const cookieKeys = [randomBytes(24).toString('base64url')];
const kidOf = (alg) => `${alg.toLowerCase()}-${randomBytes(6).toString('hex')}`;

function freshKeys() {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  return [
    { ...rsa, use: 'sig', alg: 'RS256', kid: kidOf('RS256') },
    { ...ec, use: 'sig', alg: 'ES256', kid: kidOf('ES256') },
  ];
}

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

function client(id, algorithm) {
  return {
    client_id: id,
    client_name: id,
    token_endpoint_auth_method: 'none',
    application_type: 'native', // a loopback redirect may then use any port (RFC 8252)
    redirect_uris: ['http://127.0.0.1/auth/callback'],
    response_types: ['code'],
    grant_types: [DEVICE, 'authorization_code', 'refresh_token'], // refresh tokens with offline_access only
    id_token_signed_response_alg: algorithm,
  };
}

function configuration(keys) {
  return {
    clients: [
      client('pgwitness', 'RS256'),
      client('pgwitness-es256', 'ES256'),
      client('somebody-else', 'RS256'),
      {
        ...client('pgwitness-confidential', 'RS256'),
        token_endpoint_auth_method: 'client_secret_basic',
        client_secret: clientSecret,
      },
    ],
    jwks: { keys },
    cookies: { keys: cookieKeys },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    conformIdTokenClaims: false, // claims in the ID token itself, as most company providers do
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256'] },
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    pkce: { required: () => true },
    ttl: {
      DeviceCode: () => faults.device_code_seconds,
      IdToken: () => faults.id_token_seconds,
      AccessToken: 3600,
      Grant: 86_400,
      Session: 86_400,
      Interaction: 3600,
    },
    async findAccount(_ctx, id) {
      const person = { ...people, ...changed }[id];
      if (!person) return undefined;
      return { accountId: id, claims: async () => ({ sub: id, ...person }) };
    },
  };
}

let issuer;
let keys = freshKeys();
let serve;

/** A provider with the given keys. Grants, sessions and codes live on in the process. */
function openProvider() {
  const provider = new Provider(issuer, configuration(keys));
  provider.use(async (ctx, next) => {
    await next();
    for (const field of SECRET_FIELDS) if (ctx.body?.[field]) remember(ctx.body[field]);
    const code = String(ctx.response.get('location') ?? '').match(/[?&]code=([^&]+)/);
    if (code) remember(code[1]);
    // RFC 8628: `interval` is optional, 5 seconds if absent. Tests have no such patience.
    if (ctx.path === '/device/auth' && ctx.body?.device_code && faults.interval !== null) {
      ctx.body = { ...ctx.body, interval: faults.interval };
    }
  });
  serve = provider.callback();
}

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

/** True, once, while the named counter lasts. */
function spend(name) {
  if (faults[name] <= 0) return false;
  faults[name] -= 1;
  return true;
}

/** Answers wrongly on purpose; true if it did. */
function spoil(path, response) {
  const unavailable = () => answer(response, 503, { error: 'temporarily_unavailable' });
  if (path === '/token') {
    if (spend('token_hang_times')) return true; // never answered
    if (spend('token_503_times')) return unavailable(), true;
    if (spend('token_slow_down_times')) return answer(response, 400, { error: 'slow_down' }), true;
  }
  if (path === '/device/auth' && spend('device_503_times')) return unavailable(), true;
  if (path === '/jwks' && spend('jwks_503_times')) return unavailable(), true;
  if (path === '/.well-known/openid-configuration' && spend('discovery_503_times')) return unavailable(), true;
  return false;
}

const front = createServer((request, response) => {
  const path = new URL(request.url, 'http://loopback').pathname;
  if (requests.length < REQUEST_LOG_MAX) requests.push({ at: Date.now(), method: request.method, path });
  if (!spoil(path, response)) serve(request, response);
});

const listen = (server, port) => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(port, HOST, () => resolve(server.address().port));
});

async function body(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > CONTROL_BODY_MAX) throw new Error('control request is too long');
  }
  return text ? JSON.parse(text) : {};
}

const control = {
  /** Sets some faults; the others stay. */
  'POST /faults': async (wanted) => {
    for (const name of Object.keys(wanted)) {
      if (!(name in faults)) throw new Error(`unknown fault ${name}; known: ${Object.keys(faults)}`);
    }
    Object.assign(faults, wanted);
    return faults;
  },
  /** Everything well again. */
  'POST /reset': async () => {
    faults = initialFaults();
    requests = [];
    changed = {};
    return faults;
  },
  /** A person has other groups from now on, or is disabled. */
  'POST /person': async ({ name, groups }) => {
    changed[name] = groups ? { ...people[name], groups } : null;
    return {};
  },
  /** New signing keys; the old ones are gone from the key set. */
  'POST /rotate': async () => {
    keys = freshKeys();
    openProvider();
    return { kids: keys.map((key) => key.kid) };
  },
  /** A token with any claims, signed with the provider's own RSA key: for tokens that are wrong in
   * one way only. */
  'POST /sign': async ({ claims, header = {} }) => {
    const key = keys.find((each) => each.alg === 'RS256');
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'RS256', typ: 'JWT', kid: key.kid, ...header })}.${encode(claims)}`;
    const privateKey = createPrivateKey({ key, format: 'jwk' });
    return { token: `${signed}.${sign('sha256', Buffer.from(signed), privateKey).toString('base64url')}` };
  },
  /** Nobody listens any more. */
  'POST /down': async () => {
    const closed = new Promise((resolve) => front.close(resolve));
    front.closeAllConnections();
    await closed;
    return {};
  },
  /** Back on the same port. */
  'POST /up': async () => {
    await listen(front, Number(new URL(issuer).port));
    return {};
  },
  'GET /confidential': async () => ({ id: 'pgwitness-confidential', secret: clientSecret }),
  'GET /secrets': async () => [...secrets],
  'GET /faults': async () => faults,
  /** What was asked of the provider since the last reset. */
  'GET /requests': async () => requests,
};

const back = createServer(async (request, response) => {
  const action = control[`${request.method} ${request.url}`];
  if (!action) return answer(response, 404, { error: 'no such control', known: Object.keys(control) });
  try {
    return answer(response, 200, await action(await body(request)));
  } catch (error) {
    return answer(response, 400, { error: String(error.message) });
  }
});

const port = await listen(front, Number(args.port));
issuer = `http://${HOST}:${port}`;
openProvider();
const controlPort = await listen(back, Number(args['control-port']));
process.stdout.write(`${JSON.stringify({ issuer, control: `http://${HOST}:${controlPort}`, pid: process.pid })}\n`);

const end = () => process.exit(0);
process.on('SIGTERM', end);
process.on('SIGINT', end);
process.stdin.on('end', end).resume();
