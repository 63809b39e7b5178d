//! Renewal under load: nginx goes on serving, first with the old certificate and then with the new.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::authority::World;
use crate::common::tls::Engine;
use crate::common::{Run, Server, free_ports};

/// Connections that must have been made before the renewal, and after it.
const ENOUGH: usize = 20;

/// nginx reads the file that `devkey cert show --format file` names, and the key through the module.
/// `after` has it read both anew.
#[test]
fn nginx_serves_while_its_certificate_is_renewed() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    if rustix::process::geteuid().is_root() {
        world.device.share_with("www-data");
    }
    let (port, server) = nginx(&world);
    let id = server.id();
    world.device.configure(&format!(
        "[renew]\ncommand = \"sh ./enrol\"\nafter = \"kill -HUP {id}\"\nca = {:?}\n",
        world.path("root.pem")
    ));
    let old = serial(&world, port);
    let (done, good) = (AtomicBool::new(false), AtomicUsize::new(0));
    let enough = |more: usize| {
        let wanted = good.load(Ordering::Relaxed) + more;
        while good.load(Ordering::Relaxed) < wanted {
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = get(&world, port).output();
                    if !answer.status.success() {
                        done.store(true, Ordering::Relaxed);
                        panic!("{answer}{}", server.log());
                    }
                    good.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        enough(ENOUGH);
        let renewed = world.device.devkey().arg("renew").ok();
        renewed.says(&["installed", "valid until"]);
        enough(ENOUGH);
        server.wait_for("gracefully shutting down");
        enough(ENOUGH);
        done.store(true, Ordering::Relaxed);
    });
    assert_ne!(serial(&world, port), old);
    assert_eq!(world.subjects(), ["CN=first,O=Example", "CN=between"]);
    let nothing = world.device.devkey().arg("renew").ok();
    nothing.says(&["nothing expires within 30 days"]);
}

fn get(world: &World, port: u16) -> Run {
    let curl = world
        .device
        .run("curl")
        .words("-sSf --noproxy * --cacert root.pem");
    curl.arg(format!("https://localhost:{port}/"))
}

/// The serial number of the certificate that is served, whose chain must lead to the root.
fn serial(world: &World, port: u16) -> String {
    let script = format!(
        "openssl s_client -connect localhost:{port} -CAfile root.pem -verify_return_error \
         < /dev/null > served.pem; openssl x509 -in served.pem -noout -serial"
    );
    world.sh(&script).ok().text()
}

fn nginx(world: &World) -> (u16, Server) {
    let port = free_ports(1);
    let dir = world.path("nginx");
    fs::create_dir_all(&dir).unwrap();
    let file = world.cert("show web --format file").ok().text();
    let user = match rustix::process::geteuid().is_root() {
        true => "user www-data;",
        false => "",
    };
    let config = CONFIG
        .replace("DIR", dir.to_str().unwrap())
        .replace("PORT", &port.to_string())
        .replace("USER", user)
        .replace("FILE", file.trim())
        .replace("URI", &world.web.uri);
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let run = Engine::Flag.env(&world.device, world.device.run("nginx"));
    let server = run
        .arg("-p")
        .arg(&dir)
        .args(["-c", "nginx.conf", "-e", "stderr"])
        .serve_on(port, &world.path("nginx.log"));
    (port, server)
}

const CONFIG: &str = r#"daemon off;
worker_processes 2;
pid DIR/pid;
error_log stderr info;
env DEVKEY_CONFIG;
ssl_engine pkcs11;
USER
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 127.0.0.1:PORT ssl;
        ssl_certificate FILE;
        ssl_certificate_key "engine:pkcs11:URI";
        location / { return 200 "$pid\n"; }
    }
}
"#;
