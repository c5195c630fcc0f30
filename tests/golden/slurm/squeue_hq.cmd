squeue --noheader --array --states=all --user=USER --Format=JobArrayID:48,State:24,Reason:80,exit_code:16,NodeList:120,Comment:80
