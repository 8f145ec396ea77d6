"""What projects allow: pure rules over final, merged objects, shared by every service that writes them."""
