"""What is saved: the codec, the reconnect registry with its handlers, secrets."""
