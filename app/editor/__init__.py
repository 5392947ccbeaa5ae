"""What is added to VS Code in the browser, and what is known of code-server, which serves it. The programs are in
JavaScript; the service, the agent and the Jobs of a volume import `code_server` alone."""
