//! `pgwitness approve CODE --as USER`: approves a login of the running demo, in place of a person
//! at a browser. The demo's identity provider asks nobody for a password; no other provider has
//! such a door.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::client::{Client, Connection};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `pgwitness approve`
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The code shown in the terminal
    code: String,
    /// Who approves: name or e-mail address
    #[arg(long = "as", value_name = "USER")]
    user: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: ApproveArgs) -> anyhow::Result<ExitCode> {
    let base = Client::address(&args.connection).context("no running demo was found")?;
    let client = Client::new(base, None)?;
    let metadata = client.get("/.well-known/oauth-protected-resource", &[]).await?;
    let Some(issuer) = metadata["authorization_servers"][0].as_str() else {
        bail!("the gateway names no identity provider");
    };
    let provider = reqwest::Client::builder()
        .timeout(ANSWER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let answer = provider
        .post(format!("{issuer}/approve"))
        .form(&[("user_code", args.code.as_str()), ("user", args.user.as_str())])
        .send()
        .await
        .context("could not reach the demo's identity provider")?;
    let status = answer.status();
    let said: Value = answer.json().await.context("this identity provider is not the demo's")?;
    if !status.is_success() {
        bail!("{}", said["error_description"].as_str().unwrap_or("the demo's identity provider said no"));
    }
    println!("approved as {}", said["user"].as_str().unwrap_or(&args.user));
    Ok(ExitCode::SUCCESS)
}
