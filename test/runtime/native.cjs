// Stands in for rapid-client.node, the client's native part: the same three calls, over HTTP. Loaded with --require.
const http = require("node:http");
const Module = require("node:module");

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let posted = Promise.resolve();

const call = (method, path, body = "", headers = {}) =>
  new Promise((resolve, reject) => {
    const at = { host, port, agent, method, path: `/2018-06-01/runtime/invocation/${path}`, headers };
    const request = http.request(at, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => {
        text += part;
      });
      response.on("end", () => resolve({ bodyJson: text, headers: response.headers }));
    });
    request.on("error", reject).end(body);
  });

const native = {
  async next() {
    await posted;
    return await call("GET", "next");
  },
  // The real ones block until they are answered.
  done(id, body) {
    posted = call("POST", `${id}/response`, body);
  },
  error(id, body) {
    posted = call("POST", `${id}/error`, body);
  },
};

const load = Module._load;
Module._load = function (request, ...rest) {
  return request === "./rapid-client.node" ? native : load.call(this, request, ...rest);
};
