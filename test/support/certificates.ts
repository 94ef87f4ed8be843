/** An authority, and certificates it has signed for 127.0.0.1, made by openssl in a temporary folder. */
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";

export interface Certificates {
  /** Paths of files in PEM form. */
  readonly ca: string;
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
  close(): Promise<void>;
}

export async function makeCertificates(): Promise<Certificates> {
  const dir = await mkdtemp(path.join(os.tmpdir(), "holdfast-certificates-"));
  const file = (name: string): string => path.join(dir, name);
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority", "-days", "2"];
  openssl("req", "-x509", ...key, ...authority);
  await writeFile(file("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
  const signed = (name: string) => {
    openssl("req", ...key, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    const by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"];
    openssl("x509", "-req", "-in", `${name}.csr`, "-out", `${name}.crt`, ...by);
    return { cert: file(`${name}.crt`), key: file(`${name}.key`) };
  };
  return {
    ca: file("ca.crt"),
    server: signed("server"),
    client: signed("client"),
    close: () => rm(dir, { recursive: true, force: true }),
  };
}
