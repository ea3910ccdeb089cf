"""Anthropic's Messages API over `server.chat`: its wire types, what a request asks, and answers whole and streamed."""
