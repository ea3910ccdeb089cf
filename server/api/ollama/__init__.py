"""The routes of Ollama's API that editors probe and chat through, over the same models and turns."""
