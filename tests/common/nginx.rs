//! nginx with two workers, as www-data where root starts it, and the curl that asks it.

use std::fs;
use std::path::Path;

use super::device::Device;
use super::run::{Run, Server, free_ports};
use super::tls::Ca;

/// curl to the server, with the authority's certificate and none of its own.
pub(crate) fn curl(device: &Device, ca: &Ca, port: u16) -> Run {
    device
        .run("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--cacert",
        ])
        .arg(&ca.cert)
        .arg(format!("https://localhost:{port}/"))
}

/// Starts nginx with two workers; it answers with the worker's id and the client's name.
///
/// `main` goes to the head of the configuration, `server` into the server's block.
pub(crate) fn nginx(device: &Device, ca: &Ca, main: &str, server: &str, run: Run) -> (u16, Server) {
    let port = free_ports(1);
    let dir = device.path("nginx");
    fs::create_dir_all(&dir).unwrap();
    let config = CONFIG
        .replace("PORT", &port.to_string())
        .replace("DIR", dir.to_str().unwrap())
        .replace("AUTHORITY", ca.cert.to_str().unwrap())
        .replace("MAIN", main)
        .replace("SERVER", server)
        .replace("USER", user());
    let path = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let server = run
        .args([
            Path::new("-p"),
            &dir,
            Path::new("-c"),
            &path,
            Path::new("-e"),
            Path::new("stderr"),
        ])
        .serve_on(port, &device.path("nginx.log"));
    (port, server)
}

/// Only root's nginx can change its account.
fn user() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "user www-data;"
    } else {
        ""
    }
}

const CONFIG: &str = r#"daemon off;
worker_processes 2;
pid DIR/pid;
error_log stderr info;
env DEVKEY_CONFIG;
USER
MAIN
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 127.0.0.1:PORT ssl reuseport;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_client_certificate AUTHORITY;
        SERVER
        location / { return 200 "$pid $ssl_client_verify $ssl_client_s_dn\n"; }
    }
}
"#;
