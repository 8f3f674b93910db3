// A certified implementation of an OpenID Connect provider (`oidc-provider` of npm), for tests of the page's sign-in.
//
// node identity_provider.mjs CLIENT SECRET WAY_BACK: prints its issuer, and serves until it is ended. Anybody signs in
// under any name with any password; who is called `ada` is in the group `ops`.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [client, secret, wayBack] = process.argv.slice(2);
let answer;
const server = createServer((request, response) => answer(request, response));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const provider = new Provider(issuer, {
  clients: [{ client_id: client, client_secret: secret, redirect_uris: [wayBack] }],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), use: "sig", alg: "RS256" }] },
  cookies: { keys: [secret] },
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: id === "ada" ? ["ops"] : ["others"] }),
  }),
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
});
answer = provider.callback();
console.log(`issuer ${issuer}`);
